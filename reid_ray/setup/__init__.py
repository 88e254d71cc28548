"""What `make` prepares once per machine: the torchvision hook and the offline model files."""
