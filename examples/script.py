# /// script
# dependencies = ["pandas"]
# ///
import pandas as pd

print(pd.DataFrame({"a": [1, 2, 2], "b": [1.0, 2.0, 3.0]}).groupby("a").sum())
