"""The ingest job: any supported data set becomes IMAGES and CAPTIONS tables."""
