"""The refilter job: applies other faithfulness thresholds to captions that exist; generates nothing."""
