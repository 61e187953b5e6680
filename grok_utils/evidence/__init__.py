"""All studies together and the fourteen claims: read `members`, `effects`, `rules`, `claims`, then the words."""
