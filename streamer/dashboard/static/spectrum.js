// Power of short frames, and a colour scale that colour-blind eyes read: cividis, from a few of its stops.

export const FRAME = 64; // samples: 3.2 s at 20 Hz
export const HOP = 16;

const WINDOW = Float64Array.from({ length: FRAME }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / FRAME));
const STOPS = [[0, 34, 78], [18, 53, 112], [59, 73, 109], [87, 93, 109], [112, 113, 115], [138, 134, 120], [166, 156, 117], [197, 180, 107], [230, 207, 89], [254, 232, 56]];

/** (FRAME / 2,) decibels of FRAME samples; null where one is missing. */
export function power(samples) {
  const real = new Float64Array(FRAME), imaginary = new Float64Array(FRAME);
  let mean = 0;
  for (const sample of samples) mean += sample / FRAME;
  if (Number.isNaN(mean)) return null;
  for (let i = 0; i < FRAME; i++) real[i] = (samples[i] - mean) * WINDOW[i];
  transform(real, imaginary);
  return Float32Array.from({ length: FRAME / 2 }, (_, i) => 10 * Math.log10(real[i + 1] ** 2 + imaginary[i + 1] ** 2 + 1e-12));
}

/** In place; the length is a power of two. */
function transform(real, imaginary) {
  const count = real.length;
  for (let i = 1, j = 0; i < count; i++) {
    let bit = count >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j], imaginary[i], imaginary[j]] = [real[j], real[i], imaginary[j], imaginary[i]];
  }
  for (let size = 2; size <= count; size <<= 1) {
    for (let i = 0; i < count; i += size) {
      for (let k = 0; k < size / 2; k++) {
        const angle = (-2 * Math.PI * k) / size, a = i + k, b = a + size / 2;
        const re = real[b] * Math.cos(angle) - imaginary[b] * Math.sin(angle);
        const im = real[b] * Math.sin(angle) + imaginary[b] * Math.cos(angle);
        [real[b], imaginary[b], real[a], imaginary[a]] = [real[a] - re, imaginary[a] - im, real[a] + re, imaginary[a] + im];
      }
    }
  }
}

/** Red, green, blue of 0 to 1. */
export function colour(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1), low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((value, i) => value + (at - low) * (STOPS[low + 1][i] - value));
}
