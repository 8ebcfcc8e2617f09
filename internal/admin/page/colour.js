// Colours of the map: hue says the tier, lightness how much is resident. Blue and orange differ for every kind of colour vision, and the
// ramp is one of lightness alone, so that it reads in grey, too.

const tierHues = [238, 62, 150, 330]; // OKLCH: blue, orange, green, pink

// rgb turns OKLCH into a CSS colour.
function rgb(l, c, hue) {
  const h = hue * Math.PI / 180, a = c * Math.cos(h), b = c * Math.sin(h);
  const [x, y, z] = [l + 0.3963377774 * a + 0.2158037573 * b, l - 0.1055613458 * a - 0.0638541728 * b, l - 0.0894841775 * a - 1.291485548 * b].map((v) => v ** 3);
  const linear = [4.0767416621 * x - 3.3077115913 * y + 0.2309699292 * z, -1.2684380046 * x + 2.6097574011 * y - 0.3413193965 * z, -0.0041960863 * x - 0.7034186147 * y + 1.707614701 * z];
  return "rgb(" + linear.map((v) => {
    const u = Math.min(1, Math.max(0, v));
    return Math.round(255 * (u <= 0.0031308 ? 12.92 * u : 1.055 * u ** (1 / 2.4) - 0.055));
  }).join(" ") + ")";
}

const ramps = tierHues.map((hue) => Array.from({ length: 256 }, (_, share) => {
  const r = share / 255;
  // Any page at all is told from none by a step.
  const l = share === 0 ? 0.28 : 0.42 + 0.46 * r;
  return rgb(l, share === 0 ? 0.035 : 0.075 + 0.045 * Math.sin(Math.PI * Math.min(1, r * 0.9)), hue);
}));

export function cellColour(tier, share) { return ramps[Math.max(0, tier) % ramps.length][share]; }
export function tierColour(tier) { return cellColour(tier, 170); }

export const classColour = { realtime: "#ffffff", catching_up: "#c9b6ff", lagging: "#ffd84d", stalled: "#ff9d5c", stopped: "#7d8d99" };
export const evictedColour = "#ff4d5e";
