"""All studies together and the fourteen claims: read `members`, `effects`, `verdicts`, `claims`, then the words."""
