"""The sheet on which a reader grades counterfactuals by eye, and the table of the grades."""
