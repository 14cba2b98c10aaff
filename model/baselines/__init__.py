"""Two ways to make pairs without a trained model, to compare with: copies of the real defects, and Perlin noise."""
