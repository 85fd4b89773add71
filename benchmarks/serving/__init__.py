"""How a server does under load: many clients at once, and runs that change meanwhile."""
