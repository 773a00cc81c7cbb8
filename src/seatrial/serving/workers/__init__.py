"""Workers: several processes on one port, from the first start to the last answer."""
