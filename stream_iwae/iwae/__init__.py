"""Tensors only: the importance-weighted autoencoder. Needs torch, numpy and safetensors alone."""
