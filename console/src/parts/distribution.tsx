// The distribution of a value in both arms, drawn over each other.

import * as format from "../format";
import type { Distribution, Profile } from "../types";
import { Scroll } from "./ui";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [560, 180, 44, 34, 8];
/** Bars on the screen. Bins of the sketches are narrower and are merged. */
const BARS = 48;

/** The arms that are drawn, those with the old version first. */
const ARMS = ["control", "canary", "shadow"] as const;
type Arm = (typeof ARMS)[number];

/** The name of an arm. Mirrored answers are of the canary's version. */
const armName = (arm: Arm) => (arm === "shadow" ? "mirrored" : arm);

interface Curve {
    arm: Arm;
    version: string;
    distribution: Distribution;
    count: number;
}

/** The share of the values in each of `BARS` intervals between two ends. */
export function merged(distribution: Distribution, from: number, to: number, log: boolean): number[] {
    const bars = new Array<number>(BARS).fill(0);
    const scale = (value: number) => (log ? Math.log(Math.max(value, 1e-9)) : value);
    const [low, high] = [scale(from), scale(to)];
    const add = (value: number, count: number) => {
        const at = Math.floor(((scale(value) - low) / (high - low || 1)) * BARS);
        bars[Math.min(BARS - 1, Math.max(0, at))]! += count;
    };
    if (distribution.type === "histogram")
        for (const bin of distribution.bins)
            add(log ? Math.sqrt(Math.max(bin.from, 1e-9) * bin.to) : (bin.from + bin.to) / 2, bin.count);
    if (distribution.type === "points") for (const point of distribution.points) add(point.value, point.count);
    const all = bars.reduce((sum, bar) => sum + bar, 0);
    return all > 0 ? bars.map((bar) => bar / all) : bars;
}

function ends(curves: Curve[]): [number, number] | null {
    const values = curves.flatMap(({ distribution }) => {
        if (distribution.type === "histogram")
            return distribution.bins.flatMap((bin) => [bin.from > 0 ? bin.from : bin.to, bin.to]);
        return distribution.type === "points" ? distribution.points.map((point) => point.value) : [];
    });
    if (values.length === 0) return null;
    const [from, to] = [Math.min(...values), Math.max(...values)];
    return from < to ? [from, to] : [from - 0.5, to + 0.5];
}

/** About five round numbers between two ends. */
export function ticks(from: number, to: number, log: boolean): number[] {
    const found: number[] = [];
    if (log) {
        for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power++) {
            for (const factor of [1, 2, 5]) {
                const tick = factor * 10 ** power;
                if (tick >= from && tick <= to) found.push(tick);
            }
        }
        const every = Math.ceil(found.length / 7);
        return found.filter((_, index) => index % every === 0);
    }
    const raw = (to - from) / 5;
    const base = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * base).find((step) => step >= raw) ?? raw;
    for (let tick = Math.ceil(from / step) * step; tick <= to + step / 1e6; tick += step)
        found.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
    return found;
}

function Histogram({ curves, unit, name }: { curves: Curve[]; unit: string | null; name: string }) {
    const range = ends(curves);
    if (!range) return <p class="dim">No values yet.</p>;
    const [from, to] = range;
    const log = curves.every((curve) => curve.distribution.type === "histogram") && from > 0 && to / from > 3;
    const drawn = curves.map((curve) => ({ ...curve, bars: merged(curve.distribution, from, to, log) }));
    const most = Math.max(...drawn.flatMap((curve) => curve.bars), 1e-9);
    const scale = (value: number) =>
        log ? Math.log(value / from) / Math.log(to / from) : (value - from) / (to - from);
    const x = (part: number) => LEFT + part * (WIDTH - LEFT - 8);
    const y = (share: number) => HEIGHT - BOTTOM - (share / most) * (HEIGHT - BOTTOM - TOP);
    const path = (bars: number[]) => {
        const steps = bars.map(
            (bar, index) =>
                `L${x(index / BARS).toFixed(1)},${y(bar).toFixed(1)} L${x((index + 1) / BARS).toFixed(1)},${y(bar).toFixed(1)}`,
        );
        return `M${x(0)},${y(0)} ${steps.join(" ")} L${x(1)},${y(0)}`;
    };
    return (
        <svg
            class="distribution"
            viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
            role="img"
            aria-label={`Distribution of ${name} by arm`}
        >
            {[0.5, 1].map((part) => (
                <g key={part}>
                    <line x1={LEFT} x2={WIDTH - 8} y1={y(most * part)} y2={y(most * part)} class="grid" />
                    <text x={LEFT - 4} y={y(most * part) + 4} text-anchor="end">
                        {format.significant(most * part * 100)} %
                    </text>
                </g>
            ))}
            <line x1={LEFT} x2={WIDTH - 8} y1={y(0)} y2={y(0)} class="axis" />
            {ticks(from, to, log).map((tick) => (
                <text
                    key={tick}
                    x={x(scale(tick))}
                    y={HEIGHT - BOTTOM + 14}
                    text-anchor={scale(tick) > 0.96 ? "end" : "middle"}
                >
                    {format.significant(tick)}
                </text>
            ))}
            <text x={x(0.5)} y={HEIGHT - 4} text-anchor="middle">
                {name}
                {unit ? `, ${unit}` : ""}
                {log ? ", logarithmic axis" : ""}
            </text>
            {drawn.map((curve) => (
                <path key={curve.arm} d={path(curve.bars)} class={`curve ${curve.arm}`} />
            ))}
        </svg>
    );
}

function Bars({
    rows,
    text = (share) => format.value(share, "percent"),
}: {
    rows: { label: string; arm: string; share: number | null }[];
    text?: (share: number | null) => string;
}) {
    const most = Math.max(...rows.map((row) => row.share ?? 0), 1e-9);
    return (
        <ul class="bars">
            {rows.map((row) => (
                <li key={row.label + row.arm}>
                    <span>{row.label}</span>
                    <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
                        <rect width={((row.share ?? 0) / most) * 100} height="8" class={`fill ${row.arm}`} />
                    </svg>
                    <strong>{text(row.share)}</strong>
                </li>
            ))}
        </ul>
    );
}

/** The most frequent classes are listed. */
const CLASSES = 12;

function body(curves: Curve[], unit: string | null, name: string) {
    const share = (curve: Curve): number | null => {
        const one = curve.distribution;
        return one.type === "share" || one.type === "pairs" ? one.share : one.type === "events" ? one.per_answer : null;
    };
    const type = curves[0]!.distribution.type;
    if (type === "histogram" || type === "points") return <Histogram curves={curves} unit={unit} name={name} />;
    if (type === "classes") {
        const counts = curves.map((curve) => {
            const { distribution } = curve;
            const classes =
                distribution.type === "classes"
                    ? {
                          ...distribution.classes,
                          ...(distribution.other > 0 ? { "all others": distribution.other } : {}),
                      }
                    : {};
            return {
                arm: curve.arm,
                classes: classes as Record<string, number>,
                all: Object.values(classes).reduce((sum, one) => sum + one, 0),
            };
        });
        const names = [...new Set(counts.flatMap((one) => Object.keys(one.classes)))];
        const weight = (name: string) =>
            Math.max(...counts.map((one) => (one.all > 0 ? (one.classes[name] ?? 0) / one.all : 0)));
        const top = names.sort((a, b) => weight(b) - weight(a)).slice(0, CLASSES);
        return (
            <Bars
                rows={top.flatMap((label) =>
                    counts.map((one) => ({
                        label: `${label}, ${armName(one.arm)}`,
                        arm: one.arm,
                        share: one.all > 0 ? (one.classes[label] ?? 0) / one.all : null,
                    })),
                )}
            />
        );
    }
    if (type === "moments") {
        return (
            <p>
                {curves
                    .map(
                        ({ arm, distribution }) =>
                            distribution.type === "moments" &&
                            distribution.mean !== null &&
                            `${armName(arm)}: mean ${format.significant(distribution.mean)}, standard deviation ${format.significant(Math.sqrt(distribution.variance ?? 0))}`,
                    )
                    .filter(Boolean)
                    .join("; ")}
            </p>
        );
    }
    return (
        <Bars
            rows={curves.map((curve) => ({ label: armName(curve.arm), arm: curve.arm, share: share(curve) }))}
            text={type === "events" ? (each) => `${format.value(each, "plain")} per answer` : undefined}
        />
    );
}

const LEVELS = [
    ["0.5", "median"],
    ["0.95", "p95"],
    ["0.99", "p99"],
    ["1", "largest"],
] as const;

/** One value in both arms: its name, the picture and the quantiles. */
export function DistributionCard({ name, profiles }: { name: string; profiles: Profile[] }) {
    let unit: string | null = null;
    const curves = ARMS.flatMap((arm): Curve[] => {
        const profile = profiles.find((one) => one.arm === arm);
        const one = profile?.metrics.find((one) => one.metric === name && !one.segment);
        unit ??= one?.unit ?? null;
        return profile && one
            ? [{ arm, version: profile.version, distribution: one.distribution, count: one.count }]
            : [];
    });
    const cap = curves.flatMap(({ distribution }) => (distribution.type === "points" && distribution.cap) || [])[0];
    const quantiles = curves.flatMap((curve) =>
        "quantiles" in curve.distribution
            ? [{ arm: curve.arm, of: curve.distribution.quantiles, mean: curve.distribution.mean }]
            : [],
    );
    const text = (value: number | null | undefined) =>
        format.value(value, unit === "ms" || unit === "s" ? unit : unit === "share" ? "percent" : "plain");
    return (
        <article class="card">
            <h3>{name}</h3>
            <p class="legend">
                {curves.map((curve) => (
                    <span key={curve.arm} class={`key ${curve.arm}`}>
                        {armName(curve.arm)}, {curve.version}, {format.count(curve.count)} values
                    </span>
                ))}
            </p>
            {curves.length === 0 ? <p class="dim">No values yet.</p> : body(curves, unit, name)}
            {cap !== undefined && <p class="dim small">Values above {format.significant(cap)} are counted there.</p>}
            {quantiles.length > 0 && (
                <Scroll label={`Quantiles of ${name}`}>
                    <table>
                        <thead>
                            <tr>
                                <th scope="col">arm</th>
                                <th scope="col">mean</th>
                                {LEVELS.map(([, label]) => (
                                    <th scope="col" key={label}>
                                        {label}
                                    </th>
                                ))}
                            </tr>
                        </thead>
                        <tbody>
                            {quantiles.map((row) => (
                                <tr key={row.arm}>
                                    <th scope="row">{armName(row.arm)}</th>
                                    <td>{text(row.mean)}</td>
                                    {LEVELS.map(([level]) => (
                                        <td key={level}>{text(row.of[level])}</td>
                                    ))}
                                </tr>
                            ))}
                        </tbody>
                    </table>
                </Scroll>
            )}
        </article>
    );
}
