// Sliders and the words for numbers.

/** The element of an id. */
export function element<E extends HTMLElement = HTMLElement>(id: string): E {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as E;
}

/** A number in a few digits. */
export function words(value: number, digits = 4): string {
  const size = Math.abs(value);
  const rounded = Number(value.toPrecision(digits));
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? rounded.toExponential() : String(rounded);
  return text.replaceAll("-", "−").replace("e+", "e");
}

export interface Slider {
  readonly value: number;
}

/**
 * The slider of an id, whose value stands in the output beside it.
 * @param meaning what a position stands for
 */
export function slider(id: string, meaning: (position: number) => number = (position) => position): Slider {
  const input = element<HTMLInputElement>(id);
  const output = element<HTMLOutputElement>(`${id}-value`);
  let value = 0;
  const read = () => {
    value = meaning(input.valueAsNumber);
    output.value = words(value);
    input.setAttribute("aria-valuetext", output.value);
  };
  input.addEventListener("input", read);
  read();
  return {
    get value() {
      return value;
    },
  };
}
