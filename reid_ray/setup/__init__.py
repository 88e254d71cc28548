"""Where reid_ray runs and what an environment needs: platforms, engines, the torchvision hook and the offline model files."""
