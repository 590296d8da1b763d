"""From trips to a fitted model: features, tables, coefficients, minutes."""
