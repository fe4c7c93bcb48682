// The entry of the page, and of the worker that its bench runs in: so they share one copy of the package.

if (typeof document === "object") {
  try {
    new Intl.NumberFormat(navigator.language);
  } catch {
    // uPlot would ask for that and fail: WebKitGTK's language is "C" where no locale is set.
    Object.defineProperty(navigator, "language", { value: "en" });
  }
  import("./page.js").then(
    ({ runWorkerFrom }) => runWorkerFrom(import.meta.url),
    (error: Error) => {
      const failure = document.querySelector("#failure") as HTMLElement;
      failure.append(` ${error.message}`);
      failure.hidden = false;
      throw error;
    },
  );
} else {
  import("./bench-worker.js");
}
