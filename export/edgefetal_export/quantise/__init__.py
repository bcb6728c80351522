"""INT8 by explicit QuantizeLinear and DequantizeLinear, with the recipe of the target."""
