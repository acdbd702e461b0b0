// Runs before anything is drawn, so that a chosen theme does not flash in the other one.
try {
  const theme = localStorage.getItem("mergeline-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // storage may be forbidden: then the system's theme it is
}
