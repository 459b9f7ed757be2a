// Figures as people read them. Pure.

/** Seconds as a place in a recording: 0:07, 12:34, 1:02:03. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes}:${two(whole % 60)}`
    : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

/** Seconds of waiting as an estimate; "" while it is unknown. */
export function about(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `about ${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min`;
  return `about ${Math.round(seconds / 3600)} h`;
}

export function percent(share) {
  return `${Math.floor(100 * share)} %`;
}

/** Where a job is: its place while it waits, its share while it runs. */
export function standing({ status, position, progress, estimated_s }) {
  const estimate = about(estimated_s);
  if (status === "running") {
    return `Transcribing: ${percent(progress)}` + (estimate && `, ${estimate} left`);
  }
  return (position === null ? "Waiting" : `Waiting at place ${position}`) + (estimate && `, done in ${estimate}`);
}

export function sentenceCase(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
