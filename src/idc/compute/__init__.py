"""How a network is run: hardware, precision, memory, modes, compiled."""
