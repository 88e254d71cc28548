"""The calibrate job: threshold calibration of the faithfulness filters on labelled pairs (ROC)."""
