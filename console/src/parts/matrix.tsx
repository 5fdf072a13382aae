// Segments by metrics: a result in each cell. The columns can be sorted.

import { useState } from "preact/hooks";
import * as format from "../format";
import type { Cell, Matrix, Metric, Spec } from "../types";
import * as words from "../words";
import { Scroll } from "./ui";

/** How bad a cell is, for sorting: failures first, then the nearest to the margin. */
export function badness(cell: Cell | null | undefined, worse: boolean): number {
    if (!cell) return -Infinity;
    if (cell.result === "fail") return 1e9 + Math.abs(cell.effect ?? 0);
    if (cell.effect === null) return -1e9;
    const margin = cell.margin || 1;
    return ((worse ? 1 : -1) * cell.effect) / margin;
}

export function SegmentMatrix({ matrix, spec }: { matrix: Matrix; spec: Spec }) {
    const [sort, setSort] = useState<number | "name">("name");
    const [chosen, setChosen] = useState<string | null>(null);
    const metric = (name: string) => spec.metrics.find((one) => one.name === name);
    // Only metrics that are judged in a segment have a column.
    const columns = matrix.metrics
        .map((name, index) => ({ name, index }))
        .filter(({ index }) => matrix.rows.slice(1).some((row) => row.cells[index]));
    const [first, ...rest] = matrix.rows;
    if (columns.length === 0 || !first) return <p class="dim">The rollout file judges no metric by segment.</p>;
    const worst = (cells: (Cell | null)[]) =>
        Math.max(
            ...columns.map(({ name, index }) =>
                badness(cells[index], metric(name) ? words.lowerIsBetter(metric(name)!) : true),
            ),
        );
    const rows = [...rest].sort((a, b) => {
        if (sort !== "name") {
            const name = matrix.metrics[sort]!;
            const worse = metric(name) ? words.lowerIsBetter(metric(name)!) : true;
            return badness(b.cells[sort], worse) - badness(a.cells[sort], worse);
        }
        // Failures stay on top in the order of names, too.
        const failed = (cells: (Cell | null)[]) => (worst(cells) >= 1e9 ? 1 : 0);
        return failed(b.cells) - failed(a.cells) || format.segment(a.segment).localeCompare(format.segment(b.segment));
    });
    const text = (of: Metric, value: number | null) => format.value(value, format.valueUnit(of.kind, of.source));
    const header = (key: number | "name", label: string) => (
        <th scope="col" key={key} aria-sort={sort === key ? (key === "name" ? "ascending" : "descending") : "none"}>
            <button type="button" class="plain" onClick={() => setSort(key)}>
                {label}
                {sort === key ? (key === "name" ? " ▲" : " ▼") : ""}
            </button>
        </th>
    );
    const cellKey = (row: (typeof rows)[number], index: number) => `${format.segment(row.segment)}|${index}`;
    const all = [first, ...rows];
    const detail = all
        .flatMap((row) => row.cells.map((cell, index) => ({ key: cellKey(row, index), cell })))
        .find((one) => one.key === chosen)?.cell;
    return (
        <>
            <Scroll label="Segments by metrics">
                <table class="matrix">
                    <thead>
                        <tr>
                            {header("name", "segment")}
                            {columns.map(({ name, index }) => header(index, name))}
                        </tr>
                    </thead>
                    <tbody>
                        {all.map((row) => (
                            <tr key={format.segment(row.segment)}>
                                <th scope="row">{format.segment(row.segment)}</th>
                                {columns.map(({ name, index }) => {
                                    const cell = row.cells[index];
                                    if (!cell)
                                        return (
                                            <td key={name} class="dim">
                                                not judged
                                            </td>
                                        );
                                    const found = metric(name);
                                    const key = cellKey(row, index);
                                    return (
                                        <td key={name} class={`cell result-${cell.result}`}>
                                            <button
                                                type="button"
                                                class="plain"
                                                aria-pressed={chosen === key}
                                                onClick={() => setChosen(chosen === key ? null : key)}
                                                title={cell.sentence}
                                            >
                                                <span>
                                                    <span aria-hidden="true">{words.resultSign(cell.result)}</span>{" "}
                                                    {words.result(cell.result)}
                                                    {cell.suspect && cell.result !== "fail" ? ", suspect" : ""}
                                                </span>
                                                <span class="small">
                                                    {found && cell.no_data === null
                                                        ? `${text(found, cell.canary.value)} against ${text(found, cell.control.value)}`
                                                        : (cell.no_data ?? "").replaceAll("_", " ")}
                                                    {", n "}
                                                    {format.count(cell.canary.n)}
                                                </span>
                                            </button>
                                        </td>
                                    );
                                })}
                            </tr>
                        ))}
                    </tbody>
                </table>
            </Scroll>
            <p class="dim" aria-live="polite">
                {detail
                    ? detail.sentence
                    : "Each cell: result, canary against control, and the number of the canary's answers. Choose a cell for its sentence."}
            </p>
        </>
    );
}
