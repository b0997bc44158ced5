"""The paper's nouns: labels, bridge, network, losses, reverse process, classifier."""
