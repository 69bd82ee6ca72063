from console.management.refused import refused

Command = refused("loaddata")
