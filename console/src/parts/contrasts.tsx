// The search for the part of the calls in which the arms differ most. Its result is a lead and never a verdict.

import { useState } from "preact/hooks";
import * as api from "../api";
import * as format from "../format";
import type { Both, Contrast, Contrasts, RolloutState, Verdict } from "../types";
import { Copyable, explain, Failure, Scroll, Section } from "./ui";

/** Contrasts that are shown if none is a lead. */
const SHOWN = 3;

/** Whether a search is about something: a hold, a failed check, or an end without a promotion. Otherwise it finds chance. */
export const inDoubt = (state: RolloutState, verdict: Verdict | null) =>
    !!state.hold ||
    (!!state.ending && state.ending.outcome !== "promoted") ||
    (verdict?.metrics.some((metric) => metric.result === "fail") ?? false);

/** A chance as text: `0.020`, `5e-10`. */
export function probability(p: number): string {
    if (p >= 0.001) return p.toFixed(3);
    return p > 0 ? p.toExponential(0) : "< 1e-300";
}

/** How many contrasts were looked at, and what that means for the level of one. */
export function looked({ looked, too_few, level }: Contrasts): string {
    if (looked === 0) return `No contrast had enough answers; ${format.count(too_few)} had too few.`;
    const few = too_few > 0 ? ` ${format.count(too_few)} more had too few answers.` : "";
    const alone = level / looked;
    return (
        `Looked at ${format.count(looked)} ${looked === 1 ? "contrast" : "contrasts"}, once.${few} ` +
        `A lead has a corrected p of at most ${level}. The corrected p is p times ${format.count(looked)} (Bonferroni), ` +
        `so p alone is at most ${alone >= 1e-4 ? format.significant(alone) : probability(alone)}.`
    );
}

function Table({ contrasts, state }: { contrasts: Contrast[]; state: RolloutState }) {
    const text = ({ metric, measure }: Contrast, { canary, control }: Both) => {
        const known = state.spec.metrics.find((one) => one.name === metric);
        const unit = measure ? "percent" : known ? format.valueUnit(known.kind, known.source) : "plain";
        const value = format.value(canary.value, unit);
        return control ? `${value} against ${format.value(control.value, unit)}` : value;
    };
    return (
        <Scroll label="Contrasts">
            <table class="texts">
                <thead>
                    <tr>
                        <th scope="col">metric</th>
                        <th scope="col">where</th>
                        <th scope="col">canary against control, here</th>
                        <th scope="col">in all other calls</th>
                        <th scope="col">answers here, canary and control</th>
                        <th scope="col" class="num">
                            z, standard errors
                        </th>
                        <th scope="col" class="num">
                            p alone
                        </th>
                        <th scope="col" class="num">
                            corrected p
                        </th>
                        <th scope="col">read from</th>
                    </tr>
                </thead>
                <tbody>
                    {contrasts.map((one) => (
                        <tr key={one.metric + one.measure + one.from + one.place.map(format.segment).join()}>
                            <th scope="row">
                                {one.metric}
                                {one.measure && <span class="dim small"> {one.measure}</span>}
                            </th>
                            <td class="wide">{one.place.map(format.segment).join(" and ")}</td>
                            <td>{text(one, one.here)}</td>
                            <td>{text(one, one.elsewhere)}</td>
                            <td>
                                {one.here.control
                                    ? `${format.count(one.here.canary.n)} and ${format.count(one.here.control.n)}`
                                    : `${format.count(one.here.canary.n)} captured pairs`}
                            </td>
                            <td class="num">{one.z.toFixed(1)}</td>
                            <td class="num">{probability(one.p)}</td>
                            <td class="num">{probability(one.p_corrected)}</td>
                            <td>{one.from}</td>
                        </tr>
                    ))}
                </tbody>
            </table>
        </Scroll>
    );
}

function Found({ found, state }: { found: Contrasts; state: RolloutState }) {
    const leads = found.strongest.filter((one) => one.lead);
    const shown = leads.length > 0 ? leads : found.strongest.slice(0, SHOWN);
    const notes = [...found.read.flatMap(({ note }) => note ?? []), ...found.notes];
    return (
        <>
            <p>
                <strong>
                    {found.looked === 0
                        ? "No lead: there is too little to search."
                        : leads.length === 0
                          ? "No lead: no part of the calls stands out."
                          : `${leads.length} ${leads.length === 1 ? "lead" : "leads"}, strongest first.`}
                </strong>{" "}
                {leads.length > 0 && "A lead is where to look next. It is not a verdict."}
                {leads.length === 0 && shown.length > 0 && "The strongest contrasts are within what chance gives:"}
            </p>
            {shown.length > 0 && <Table contrasts={shown} state={state} />}
            <p class="dim small">{looked(found)}</p>
            {notes.length > 0 && (
                <ul class="dim small">
                    {notes.map((note) => (
                        <li key={note}>{note}</li>
                    ))}
                </ul>
            )}
        </>
    );
}

export function ContrastSearch({ state }: { state: RolloutState }) {
    const [found, setFound] = useState<{ contrasts: Contrasts; at: number } | null>(null);
    const [busy, setBusy] = useState(false);
    const [error, setError] = useState<string | null>(null);
    const search = () => {
        setBusy(true);
        setError(null);
        void api
            .get<Contrasts>(api.rollout(state.id, "/contrasts"))
            .then((contrasts) => setFound({ contrasts, at: Date.now() * 1000 }))
            .catch((error: unknown) => setError(explain(error)))
            .finally(() => setBusy(false));
    };
    return (
        <Section
            title="Contrasts"
            id="contrasts"
            aside={found && <span class="dim small">searched at {format.time(found.at, true)} UTC</span>}
        >
            <p class="dim">
                The part of the calls in which the canary is worse than elsewhere. The search reads the log for up to
                some seconds, and decides nothing. Repeated searches find leads by chance.
            </p>
            <div class="buttons">
                <button type="button" onClick={search} disabled={busy}>
                    {busy ? "Searching …" : found ? "Search again" : "Search for contrasts"}
                </button>
            </div>
            <Failure error={error} />
            <div role="status">{found && <Found found={found.contrasts} state={state} />}</div>
            {found && <Copyable label="The same in a terminal" text={`serin explain ${state.id} --contrasts`} />}
        </Section>
    );
}
