"""Container engines behind `ports.Engine`: one package each."""
