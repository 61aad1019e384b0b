"""Both halves' finished runs laid side by side: claims, verdicts, the report."""
