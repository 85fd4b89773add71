"""Steps on a catalog that several GPUs of one host share, beside those of one GPU."""
