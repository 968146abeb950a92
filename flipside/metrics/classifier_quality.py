"""What reports/classifier.json and reports/judge.json hold, which the stage train_classifier measures."""

from flipside.metrics.family import Metric

CLASSIFIER_METRICS = {
    "accuracy": Metric("accuracy", "share of the test slices that the classifier calls what they are", True),
    "auc": Metric("AUC", "area under the ROC curve of the test slices", True, tolerance=0.01),
    "ece": Metric("ECE", "expected calibration error of the test slices: how far its probabilities are from the "
                  "rates that they promise", False, tolerance=0.02),
    "f1": Metric("F1", "F1 score of the test slices, abnormal as the positive class", True),
    "height_auc": Metric("AUC of the height", "area under the ROC curve of the test slices' height in the scan alone: "
                         "far above 0.5 it is a shortcut, see `balance: height`", False),
    "val_auc": Metric("validation AUC", "area under the ROC curve of the validation slices", True),
}
