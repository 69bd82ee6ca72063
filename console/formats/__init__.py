"""How the admin writes dates: as the audit trail and the API do, with the zone beside the time."""
