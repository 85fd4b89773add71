"""The losses: public functions, operators and the plain reference."""
