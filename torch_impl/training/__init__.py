"""What a training run is made of; ``train.py`` runs it."""
