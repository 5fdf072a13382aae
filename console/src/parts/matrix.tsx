// Segments by metrics: a result in each cell. The columns can be sorted.

import { useMemo, useState } from "preact/hooks";
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

/** Rows that are shown at first. */
const ROWS = 60;
const names = new Intl.Collator("en", { numeric: true });

/** The rows in the order of names with failures first (`by` is -1), or by the column with this index, worst first. */
export function sorted(rows: Matrix["rows"], by: number, worse: boolean[]): Matrix["rows"] {
    const keyed = rows.map((row) => {
        const failed = row.cells.some((cell) => cell?.result === "fail");
        return {
            row,
            name: format.segment(row.segment),
            key: by < 0 ? Number(failed) : badness(row.cells[by], worse[by] ?? true),
        };
    });
    keyed.sort((a, b) => (a.key === b.key ? names.compare(a.name, b.name) : b.key > a.key ? 1 : -1));
    return keyed.map(({ row }) => row);
}

export function SegmentMatrix({ matrix, spec }: { matrix: Matrix; spec: Spec }) {
    const [sort, setSort] = useState(-1);
    const [whole, setWhole] = useState(false);
    const [chosen, setChosen] = useState<{ segment: string; metric: number } | null>(null);
    const [metrics, columns] = useMemo(() => {
        const metrics = matrix.metrics.map((name) => spec.metrics.find((one) => one.name === name));
        // Only metrics that are judged in a segment have a column.
        const columns = matrix.metrics
            .map((name, index) => ({ name, index }))
            .filter(({ index }) => matrix.rows.slice(1).some((row) => row.cells[index]));
        return [metrics, columns];
    }, [matrix, spec]);
    const rows = useMemo(
        () =>
            sorted(
                matrix.rows.slice(1),
                sort,
                metrics.map((metric) => !metric || words.lowerIsBetter(metric)),
            ),
        [matrix, metrics, sort],
    );
    const [first] = matrix.rows;
    if (columns.length === 0 || !first) return <p class="dim">The rollout file judges no metric by segment.</p>;
    const text = (of: Metric, value: number | null) => format.value(value, format.valueUnit(of.kind, of.source));
    const header = (key: number, label: string) => (
        <th scope="col" key={key} aria-sort={sort === key ? (key < 0 ? "ascending" : "descending") : "none"}>
            <button type="button" class="plain" onClick={() => setSort(key)}>
                {label}
                {sort === key ? (key < 0 ? " ▲" : " ▼") : ""}
            </button>
        </th>
    );
    const all = [first, ...(whole ? rows : rows.slice(0, ROWS))];
    const detail =
        chosen && matrix.rows.find((row) => format.segment(row.segment) === chosen.segment)?.cells[chosen.metric];
    return (
        <>
            <Scroll label="Segments by metrics">
                <table class="matrix">
                    <thead>
                        <tr>
                            {header(-1, "segment")}
                            {columns.map(({ name, index }) => header(index, name))}
                        </tr>
                    </thead>
                    <tbody>
                        {all
                            .map((row) => ({ row, segment: format.segment(row.segment) }))
                            .map(({ row, segment }) => (
                                <tr key={segment}>
                                    <th scope="row">{segment}</th>
                                    {columns.map(({ name, index }) => {
                                        const cell = row.cells[index];
                                        if (!cell)
                                            return (
                                                <td key={name} class="dim">
                                                    not judged
                                                </td>
                                            );
                                        const found = metrics[index];
                                        const pressed = chosen?.segment === segment && chosen.metric === index;
                                        return (
                                            <td key={name} class={`cell result-${cell.result}`}>
                                                <button
                                                    type="button"
                                                    class="plain"
                                                    aria-pressed={pressed}
                                                    onClick={() =>
                                                        setChosen(pressed ? null : { segment, metric: index })
                                                    }
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
            {rows.length > ROWS && !whole && (
                <button type="button" onClick={() => setWhole(true)}>
                    Show all {format.count(rows.length)} segments
                </button>
            )}
            <p class="dim" aria-live="polite">
                {detail
                    ? detail.sentence
                    : "Each cell: result, canary against control, and the number of the canary's answers. Choose a cell for its sentence."}
            </p>
        </>
    );
}
