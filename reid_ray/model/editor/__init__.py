"""Editors that dress people anew from reference crops (Diverse Person), and published inpainting pipelines. The only place of diffusers."""
