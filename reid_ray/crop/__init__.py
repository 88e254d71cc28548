"""Video files and folders of frames -> crops of people with camera, time, box and track."""
