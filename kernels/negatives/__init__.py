"""What a user chooses: samplers, histories, and the checks of a call's arguments."""
