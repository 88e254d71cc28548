"""The calibrate job: which threshold a faithfulness filter needs."""
