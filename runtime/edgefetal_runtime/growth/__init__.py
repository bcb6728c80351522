"""From measurements in mm to age, estimated weight and size for age, by published formulae and charts."""
