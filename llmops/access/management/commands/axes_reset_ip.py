from llmops.access.management.unlocking import audited

Command = audited("axes_reset_ip")
