// Numbers, units, times and durations as text. Pure.

import type { Kind, Metric, Segment, Step } from "./types";

export type Unit = "percent" | "ms" | "s" | "plain";

const number = (digits: number) => new Intl.NumberFormat("en-US", { maximumSignificantDigits: digits });
const [three, whole] = [number(3), new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 })];

/** Three significant digits; whole numbers from 1,000. */
export function significant(value: number): string {
    return Math.abs(value) >= 1000 ? whole.format(value) : three.format(value);
}

/** A count, such as `1,234`. */
export function count(value: number): string {
    return whole.format(value);
}

/** The unit of a metric's values. */
export function valueUnit(kind: Kind, source: unknown): Unit {
    if (kind === "rate" || kind === "disagreement" || kind === "classes") return "percent";
    if (source === "latency") return "ms";
    const delay = typeof source === "object" && source !== null && "label_delay" in source;
    return delay ? "s" : "plain";
}

/** The unit of the difference between the arms and of the margin. Whole distributions differ by a share. */
export function effectUnit(metric: Metric): Unit {
    return metric.kind === "distribution" ? "percent" : valueUnit(metric.kind, metric.source);
}

/** A value with its unit: `8.3 %`, `1,023 ms`; `no data` for null. */
export function value(value: number | null | undefined, unit: Unit): string {
    if (value === null || value === undefined || !Number.isFinite(value)) return "no data";
    switch (unit) {
        case "percent":
            return `${significant(value * 100)} %`;
        case "ms":
            return `${significant(value)} ms`;
        case "s":
            return `${significant(value)} s`;
        case "plain":
            return significant(value);
    }
}

/** A difference with its sign and unit: `+3.2 points`, `−12 ms`. */
export function difference(value: number | null | undefined, unit: Unit): string {
    if (value === null || value === undefined || !Number.isFinite(value)) return "no data";
    const scaled = unit === "percent" ? value * 100 : value;
    const text = significant(Math.abs(scaled));
    const sign = text === "0" ? "" : scaled > 0 ? "+" : "−";
    const suffix = { percent: text === "1" ? " point" : " points", ms: " ms", s: " s", plain: "" }[unit];
    return `${sign}${text}${suffix}`;
}

/** A share in ten-thousandths, as the API has it: `2500` is `25 %`. */
export function share(parts: number): string {
    return `${significant(parts / 100)} %`;
}

/** The name of the quantity behind a kind: `p99`, `rate`, `mean`. */
export function statistic(kind: Kind): string {
    if (typeof kind === "string")
        return {
            rate: "rate",
            distribution: "distribution",
            classes: "mix of classes",
            count: "per answer",
            disagreement: "disagreement",
        }[kind];
    if ("quantile" in kind) return `p${significant(kind.quantile.level * 100)}`;
    return "mean";
}

/** `origin=LGA`, or `all traffic`. */
export function segment(segment: Segment | null | undefined): string {
    return segment && segment.dimension !== "" ? `${segment.dimension}=${segment.value}` : "all traffic";
}

/** Whether a segment is all traffic. */
export function isAll(segment: Segment): boolean {
    return segment.dimension === "";
}

/** A duration in its two largest units: `2d 4h`, `5m 3s`. */
export function duration(seconds: number): string {
    const total = Math.max(0, Math.round(seconds));
    const parts: [number, string][] = [
        [Math.floor(total / 86400), "d"],
        [Math.floor(total / 3600) % 24, "h"],
        [Math.floor(total / 60) % 60, "m"],
        [total % 60, "s"],
    ];
    const first = parts.findIndex(([amount]) => amount > 0);
    if (first < 0) return "0s";
    return parts
        .slice(first, first + 2)
        .filter(([amount]) => amount > 0)
        .map(([amount, unit]) => `${amount}${unit}`)
        .join(" ");
}

/** Seconds of a duration of the rollout file, such as `1d`, `90s` or `1h30m`; 0 if it cannot be read. */
export function seconds(text: string | undefined): number {
    const factors: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
    let total = 0;
    for (const [, amount, unit] of (text ?? "").matchAll(/(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)/g))
        total += Number(amount) * factors[unit!]!;
    return total;
}

/** A time in UTC: `2026-11-21 11:51` with seconds when asked for. */
export function time(micros: number, withSeconds = false): string {
    const text = new Date(micros / 1000).toISOString();
    return `${text.slice(0, 10)} ${text.slice(11, withSeconds ? 19 : 16)}`;
}

/** Calls over time in the unit that gives a number from 1: `880 calls a day`. */
export function rate(perSecond: number): string {
    const [seconds, unit] = (
        [
            [1, "second"],
            [60, "minute"],
            [3600, "hour"],
        ] as const
    ).find(([seconds]) => perSecond * seconds >= 1) ?? [86400, "day"];
    return `${significant(perSecond * seconds)} calls ${unit === "hour" ? "an" : "a"} ${unit}`;
}

/** A step as the rollout file has it: `25%`, or `mirror 10%`. */
export function step(step: Step): string {
    return step.mirror ? `mirror ${step.mirror}` : (step.weight ?? "0%");
}
