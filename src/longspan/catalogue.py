"""The 55 systems: what each is, and how far it works here."""
