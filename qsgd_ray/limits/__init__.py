"""Study the limits of the method: measure over growing sizes, fit a cost model, predict the largest size, draw it."""
