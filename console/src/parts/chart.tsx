// A metric over time: both arms, and their difference with its always-valid interval against the margin.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import * as format from "../format";
import type { Metric, Point, PointMetric } from "../types";
import { lowerIsBetter, shownEffect } from "../words";
import { stepMarks } from "./ramp";

const HEIGHT = 132;

interface Curves {
    x: number[];
    found: (PointMetric | undefined)[];
}

/** The points of one metric. Warm-up has none. */
export function curves(points: Point[], metric: string): Curves {
    const judged = points.filter((point) => point.metrics.length > 0);
    return {
        x: judged.map((point) => point.as_of / 1e6),
        found: judged.map((point) => point.metrics.find((one) => one.metric === metric)),
    };
}

/** The range of the chart of the difference. Early intervals are wide; they do not make the later ones unreadable. */
export function effectRange(
    low: (number | null)[],
    high: (number | null)[],
    effect: (number | null)[],
    lines: number[],
): [number, number] {
    const known = (values: (number | null)[]) =>
        values.filter((one): one is number => one !== null && Number.isFinite(one));
    const late = (values: (number | null)[]) => known(values.slice(Math.floor(values.length / 3)));
    const all = [0, ...lines.map((line) => line * 1.3), ...known(effect), ...late(low), ...late(high)];
    const [from, to] = [Math.min(...all), Math.max(...all)];
    const pad = (to - from || 1) * 0.08;
    return [from - pad, to + pad];
}

const css = (element: Element, name: string) => getComputedStyle(element).getPropertyValue(name).trim();

/** The time at a tick, in UTC: a date for long spans, else the time of day. */
function timeLabel(seconds: number, plot: uPlot): string {
    const { min, max } = plot.scales["x"]!;
    const text = new Date(seconds * 1000).toISOString();
    const span = (max ?? 0) - (min ?? 0);
    if (span > 2 * 86400 || (span > 600 && text.slice(11, 16) === "00:00")) return text.slice(5, 10);
    return span > 600 ? text.slice(11, 16) : text.slice(11, 19);
}

/** The range of the chart of both arms. Equal values, such as 0 % everywhere, get a small one. */
export function flat(low: number | null, high: number | null): [number, number] {
    const [from, to] = [low ?? 0, high ?? 0];
    const pad = to > from ? (to - from) * 0.08 : Math.abs(to) * 0.1 || 1;
    return [from >= 0 ? Math.max(0, from - pad) : from - pad, to + pad];
}

/** Calls `draw` with a canvas whose coordinates are those of the plot. */
type Draw = (plot: uPlot, context: CanvasRenderingContext2D) => void;

function options(
    host: HTMLElement,
    unit: string,
    series: uPlot.Series[],
    bands: uPlot.Band[],
    range: uPlot.Range.Function,
    before: Draw,
    marks: Draw,
): uPlot.Options {
    const [dim, grid] = [css(host, "--dim"), css(host, "--line")];
    const font = `11px ${css(host, "--font")}`;
    const axis: uPlot.Axis = { stroke: dim, font, grid: { stroke: grid, width: 1 }, ticks: { show: false } };
    return {
        // Labels of marks are above the plot.
        width: Math.max(200, host.clientWidth),
        height: HEIGHT,
        padding: [16, null, null, null],
        legend: { show: false },
        cursor: { sync: { key: "metrics" }, points: { show: false }, drag: { x: false, y: false } },
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
        scales: { y: { range } },
        axes: [
            { ...axis, size: 26, space: 76, values: (plot, ticks) => ticks.map((tick) => timeLabel(tick, plot)) },
            {
                ...axis,
                size: 62,
                space: 26,
                values: (_, ticks) => ticks.map((tick) => `${format.significant(tick)}${unit}`),
            },
        ],
        series: [{}, ...series],
        bands,
        hooks: {
            drawClear: [
                (plot) => {
                    const context = plot.ctx;
                    context.save();
                    context.beginPath();
                    context.rect(plot.bbox.left, plot.bbox.top, plot.bbox.width, plot.bbox.height);
                    context.clip();
                    before(plot, context);
                    context.restore();
                    marks(plot, context);
                },
            ],
        },
    };
}

function vertical(
    plot: uPlot,
    context: CanvasRenderingContext2D,
    at: number,
    color: string,
    label: string,
    dash: number[],
): void {
    const x = plot.valToPos(at, "x", true);
    context.strokeStyle = context.fillStyle = color;
    context.lineWidth = devicePixelRatio;
    context.setLineDash(dash.map((length) => length * devicePixelRatio));
    context.beginPath();
    context.moveTo(x, plot.bbox.top);
    context.lineTo(x, plot.bbox.top + plot.bbox.height);
    context.stroke();
    context.setLineDash([]);
    context.font = `${10 * devicePixelRatio}px ${css(plot.root, "--font")}`;
    const near = x > plot.bbox.left + plot.bbox.width * 0.85;
    context.textAlign = near ? "right" : "left";
    context.textBaseline = "top";
    context.fillText(label, x + (near ? -3 : 3) * devicePixelRatio, plot.bbox.top - 13 * devicePixelRatio);
}

function horizontal(plot: uPlot, context: CanvasRenderingContext2D, at: number, color: string, dash: number[]): number {
    const y = plot.valToPos(at, "y", true);
    context.strokeStyle = color;
    context.lineWidth = devicePixelRatio;
    context.setLineDash(dash.map((length) => length * devicePixelRatio));
    context.beginPath();
    context.moveTo(plot.bbox.left, y);
    context.lineTo(plot.bbox.left + plot.bbox.width, y);
    context.stroke();
    context.setLineDash([]);
    return y;
}

/** The two charts of a metric. */
export function MetricCharts({ points, metric }: { points: Point[]; metric: Metric }) {
    const arms = useRef<HTMLDivElement>(null);
    const effect = useRef<HTMLDivElement>(null);
    const plots = useRef<{ arms: uPlot; effect: uPlot } | null>(null);
    const shown = useRef(points);
    shown.current = points;

    const [values, effects] = [format.valueUnit(metric.kind, metric.source), format.effectUnit(metric)];
    const scale = (one: number | null | undefined, unit: format.Unit) =>
        one === null || one === undefined ? null : unit === "percent" ? one * 100 : one;
    const armsData = (): uPlot.AlignedData => {
        const { x, found } = curves(shown.current, metric.name);
        return [
            x,
            found.map((one) => scale(one?.control.value, values)),
            found.map((one) => scale(one?.canary.value, values)),
        ];
    };
    const effectData = (): uPlot.AlignedData => {
        const { x, found } = curves(shown.current, metric.name);
        return [
            x,
            found.map((one) => scale(one?.effect_low, effects)),
            found.map((one) => scale(one?.effect_high, effects)),
            found.map((one) => scale(one && shownEffect(one), effects)),
        ];
    };
    const last = () => curves(shown.current, metric.name).found.findLast((one) => one !== undefined);
    const limit = () => last()?.limit_fail ?? null;
    /** Beyond this difference the canary fails. With a limit, the difference is counted from the limit. */
    const border = () => {
        if (limit() !== null) return 0;
        const margin = scale(last()?.margin, effects);
        return margin === null ? null : lowerIsBetter(metric) ? margin : -margin;
    };

    const marks: Draw = (plot, context) => {
        // A last frame may be drawn after the page has changed.
        const host = plot.root;
        for (const mark of stepMarks(shown.current))
            vertical(plot, context, mark.at / 1e6, css(host, "--dim"), mark.label, [2, 3]);
        const failed = last()?.failed_at;
        if (failed) vertical(plot, context, failed / 1e6, css(host, "--bad"), "failed", []);
    };

    useEffect(() => {
        const [top, bottom] = [arms.current!, effect.current!];
        const build = () => {
            plots.current?.arms.destroy();
            plots.current?.effect.destroy();
            const canary = css(top, "--canary");
            const control = css(top, "--control");
            const suffix = (unit: format.Unit) => ({ percent: " %", ms: " ms", s: " s", plain: "" })[unit];
            const points = { show: (plot: uPlot) => plot.data[0].length < 2 };
            const upper = new uPlot(
                options(
                    top,
                    suffix(values),
                    [
                        { stroke: control, width: 2, dash: [6, 4], points },
                        { stroke: canary, width: 2, points },
                    ],
                    [],
                    (_, low, high) => flat(low, high),
                    (plot, context) => {
                        const most = scale(limit(), values);
                        if (most !== null) horizontal(plot, context, most, css(top, "--bad"), [4, 3]);
                    },
                    marks,
                ),
                armsData(),
                top,
            );
            const lines = () => {
                const line = border();
                return line === null ? [] : [line];
            };
            const lower = new uPlot(
                options(
                    bottom,
                    effects === "percent" ? " pts" : suffix(effects),
                    [
                        { stroke: css(top, "--interval-edge"), width: 1, points: { show: false } },
                        { stroke: css(top, "--interval-edge"), width: 1, points: { show: false } },
                        { stroke: canary, width: 2, points },
                    ],
                    [{ series: [2, 1], fill: css(top, "--interval") }],
                    (plot) => {
                        const [, low, high, middle] = plot.data as [
                            unknown,
                            (number | null)[],
                            (number | null)[],
                            (number | null)[],
                        ];
                        return effectRange(low ?? [], high ?? [], middle ?? [], lines());
                    },
                    (plot, context) => {
                        const line = border();
                        if (line !== null) {
                            const y = plot.valToPos(line, "y", true);
                            context.fillStyle = css(top, "--harm");
                            const [from, to] = lowerIsBetter(metric)
                                ? [plot.bbox.top, y]
                                : [y, plot.bbox.top + plot.bbox.height];
                            context.fillRect(plot.bbox.left, from, plot.bbox.width, to - from);
                            horizontal(plot, context, line, css(top, "--bad"), [4, 3]);
                        }
                        horizontal(plot, context, 0, css(top, "--dim"), []);
                    },
                    marks,
                ),
                effectData(),
                bottom,
            );
            plots.current = { arms: upper, effect: lower };
        };
        build();
        const resized = new ResizeObserver(() => {
            const width = Math.max(200, top.clientWidth);
            if (plots.current && plots.current.arms.width !== width) {
                plots.current.arms.setSize({ width, height: HEIGHT });
                plots.current.effect.setSize({ width, height: HEIGHT });
            }
        });
        resized.observe(top);
        const dark = matchMedia("(prefers-color-scheme: dark)");
        dark.addEventListener("change", build);
        return () => {
            resized.disconnect();
            dark.removeEventListener("change", build);
            plots.current?.arms.destroy();
            plots.current?.effect.destroy();
            plots.current = null;
        };
    }, [metric.name]);

    useEffect(() => {
        plots.current?.arms.setData(armsData());
        plots.current?.effect.setData(effectData());
    }, [points]);

    const found = last();
    const summary = found && shownEffect(found);
    return (
        <div class="charts">
            <figure>
                <figcaption>
                    {limit() === null ? "Both arms" : "Both arms, and the limit"}, since the canary started
                </figcaption>
                <div class="plot" ref={arms} role="img" aria-label={`${metric.name}: both arms over time`} />
            </figure>
            <figure>
                <figcaption>
                    {limit() === null
                        ? "Canary − control with its interval; beyond the dashed line is harm"
                        : "Canary − limit with its interval; beyond the dashed line is harm"}
                </figcaption>
                <div
                    class="plot"
                    ref={effect}
                    role="img"
                    aria-label={`${metric.name}: difference over time, now ${format.difference(summary, effects)}`}
                />
            </figure>
        </div>
    );
}
