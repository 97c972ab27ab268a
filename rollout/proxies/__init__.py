"""The proxies that take the traffic, behind `ports.Proxy`, and where they run, behind `ports.ProxyProcess`."""
