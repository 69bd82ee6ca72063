// In place of Unfold's 200 kB of Chart.js, which each page of the admin would load: none of them draws a chart with it.
