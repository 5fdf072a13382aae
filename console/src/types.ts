// The JSON of the controller's API (docs/api.md), as far as the console reads it. Times are microseconds since 1970.

export type Phase =
    | "pending"
    | "warming"
    | "shadowing"
    | "baking"
    | "held"
    | "paused"
    | "promoted"
    | "completed"
    | "rolled_back"
    | "aborted"
    | "superseded";
export type Result = "pass" | "fail" | "undecided" | "no_data";
export type Decision = "promote" | "rollback" | "continue" | "hold";

export interface Segment {
    dimension: string;
    value: string;
}
export interface Estimate {
    n: number;
    value: number | null;
}
export interface Reason {
    metric: string;
    segment: Segment;
    sentence: string;
}

export interface Step {
    weight?: string;
    mirror?: string;
    bake: { min: string; max: string; minEvents?: number };
    require?: string;
}

export type Kind =
    | "rate"
    | "distribution"
    | "classes"
    | "count"
    | "disagreement"
    | { mean: { min: number; max: number } }
    | { capped_mean: { cap: number } }
    | { quantile: { level: number } };

export interface Metric {
    name: string;
    kind: Kind;
    source: unknown;
    direction?: "lower_is_better" | "higher_is_better";
    role?: "gate" | "score" | "watch";
    maturity?: string;
    segments?: string[];
}

export interface Spec {
    model: string;
    stable: { version: string };
    canary: { version: string };
    mode?: string;
    traffic?: string;
    window?: string;
    controlRatio?: number;
    steps: Step[];
    metrics: Metric[];
    warmup?: { minEvents: number };
    promotion?: { monitor?: string };
    decision?: { holdMax?: string; onInconclusive?: string; falseRollback?: number };
}

export type Cause = "health" | "marginal" | "stale" | "approval";

export interface Applied {
    generation: number;
    done: boolean;
    routers: string[];
    waits_for: string;
    soon: boolean;
    refused: boolean;
}

export interface RolloutState {
    id: string;
    spec: Spec;
    phase: Phase;
    step: number;
    generation: number;
    canaryShare: number;
    mirrorShare: number;
    controlShare: number;
    startedAt: number;
    clock: { spent: number; since: number | null };
    answers: number;
    answersBefore: number;
    hold: { cause: Cause; since: number } | null;
    /** No step is taken until the freeze ends. */
    freeze?: { models: string; by: string; reason: string; until: number | null };
    /** Until when a promotion may be undone, in milliseconds. */
    undoUntil?: number;
    pause: { by: string; since: number } | null;
    promoted: boolean;
    verdict: {
        id: string;
        asOf: number;
        decision: Decision;
        holds?: { sentence: string; canBeAcknowledged: boolean }[];
    } | null;
    verdictMs?: number;
    sentence: string;
    ending: { outcome: string; reasons: Reason[]; sentence: string; at: number; actor: string } | null;
    applied?: Applied | null;
    headline?: Headline;
    progress?: { name: string; text: string }[];
}

export type Tone = "good" | "bad" | "open" | "plain";
export interface Headline {
    tone: Tone;
    text: string;
}

/** A rollout as the stream has it. */
export interface Summary {
    id: string;
    model: string;
    stable: string;
    canary: string;
    mode: string;
    phase: Phase;
    step: number;
    steps: number;
    canary_share: number;
    mirror_share: number;
    promoted: boolean;
    started_at: number;
    recorded_at: number | null;
    started_by: string | null;
    hold: { cause: Cause } | null;
    paused_by: string | null;
    headline: Headline;
    sentence: string;
    outcome: string | null;
    events: number;
    verdict: { id: string; as_of: number; decision: Decision; failed: string[]; issues: number } | null;
    needs: "decision" | "evidence" | "resume" | null;
}

/** A metric over all traffic at one point of the series of verdicts. */
export type PointMetric = Pick<
    MetricVerdict,
    | "metric"
    | "role"
    | "result"
    | "no_data"
    | "canary"
    | "control"
    | "effect"
    | "effect_low"
    | "effect_high"
    | "margin"
    | "limit_pass"
    | "limit_fail"
    | "failed_at"
>;
export interface Point {
    id: string;
    as_of: number;
    recorded_at: number;
    step: number;
    generation: number;
    canary_share: number;
    decision: Decision;
    sentence: string;
    arms: { arm: string; predictions: number }[];
    metrics: PointMetric[];
}
export interface Series {
    points: Point[];
    seen: number;
    every: number;
    complete: boolean;
    note: string | null;
}

export interface Cell extends Omit<MetricVerdict, "metric" | "segment"> {
    suspect?: boolean;
}
export interface Matrix {
    as_of: number;
    metrics: string[];
    rows: { segment: Segment; cells: (Cell | null)[] }[];
}

export interface Session {
    signed_in: boolean;
    name: string | null;
    role: "viewer" | "operator" | null;
    by: string | null;
    tokens: boolean;
    build: string;
}

export interface Course {
    end: string;
    step: number;
    seconds: number;
    steps: number[];
    canary_requests: number;
    share: number;
}
export interface Forecast {
    requests_per_second: number;
    hypotheses: number;
    steps: {
        step: number;
        weight: number;
        canary_per_second: number;
        metrics: {
            metric: string;
            role: string;
            stable: number;
            border: number;
            seen_by_max: number | null;
            regressed: number;
            fail: { answers: number; seconds: number } | null;
            requests_at_risk: number | null;
            extra_events: number | null;
        }[];
    }[];
    healthy: Course;
    regressions: { metric: string; stable: number; canary: number; course: Course; extra_events: number | null }[];
    advice: string[];
}
export interface Plan {
    valid: boolean;
    problems: Problem[];
    spec: Spec | null;
    serving: string | null;
    running: string | null;
    forecast: Forecast | null;
    forecast_error: string | null;
}

/** The answer to an action. */
export interface Answer {
    rollout?: string;
    refused: boolean;
    sentence?: string;
    applied?: Applied | null;
    error?: string;
    problems?: Problem[];
}

export interface MetricVerdict {
    metric: string;
    segment: Segment;
    role: "gate" | "score" | "watch";
    result: Result;
    no_data: string | null;
    canary: Estimate;
    control: Estimate;
    effect: number | null;
    effect_low: number | null;
    effect_high: number | null;
    margin: number | null;
    limit_pass?: number | null;
    limit_fail?: number | null;
    better?: boolean;
    culprit?: string | null;
    p_fail?: number;
    failed_at: number | null;
    evidence_through?: number | null;
    harm?: { from: number; through: number; canary: Estimate; control: Estimate; difference: number | null } | null;
    sentence: string;
}

export interface ArmSummary {
    arm: string;
    version: string;
    predictions: number;
    excluded: number;
    errors: number;
    invalid: number;
    late: number;
    lost: number;
    refused: number;
    redirected: number;
    unread: number;
    cancelled: number;
}

export interface Verdict {
    id: string;
    rollout: string;
    model: string;
    step: number;
    generation: number;
    as_of: number;
    decision: Decision;
    reasons: Reason[];
    score_low: number;
    score_high: number;
    metrics: MetricVerdict[];
    arms: ArmSummary[];
    health: { reason: string; policy: string; sentence: string }[];
    warmup_events: number | null;
    sentence: string;
}

export interface RolloutEvent {
    id: string;
    kind: string;
    phase: Phase;
    step: number;
    canary_share: number;
    at: number;
    recorded_at: number;
    actor: string;
    sentence: string;
    rollout?: string | null;
    cause?: string | null;
}

export interface Routes {
    arm: string;
    share: number;
    version: string;
    url?: string;
}
export interface RoutingTable {
    model: string;
    generation: number;
    routes: Routes[];
    fallback: boolean;
    reason: string;
    decided_at: number;
}

export type Distribution =
    | { type: "share"; events: number; share: number | null }
    | {
          type: "histogram";
          bins: { from: number; to: number; count: number }[];
          quantiles: Record<string, number>;
          mean: number | null;
      }
    | {
          type: "points";
          points: { value: number; count: number }[];
          /** The last point counts all values above it. */
          cap?: number;
          quantiles: Record<string, number>;
          mean: number | null;
      }
    | { type: "classes"; classes: Record<string, number>; other: number }
    | { type: "events"; events: number; per_answer: number | null }
    | { type: "pairs"; differ: number; share: number | null }
    | { type: "moments"; mean: number | null; variance: number | null };

export interface Profile {
    arm: string;
    version: string;
    from: number;
    to: number;
    windows: number;
    calls: Record<string, number>;
    metrics: {
        metric: string;
        unit: string | null;
        segment: Segment | null;
        count: number;
        distribution: Distribution;
    }[];
}
export interface Profiles {
    profiles: Profile[];
    not_profiled: { name: string; add: string }[];
    /** Number of distributions that the answer does not have. */
    left_out: number;
    read: { note: string | null };
}

export interface CapturedAnswer {
    version: string;
    status: number | null;
    error: string | null;
    latency_us: number | null;
    body: string | null;
    bytes: number;
}
/** Two answers to one call, redacted. */
export interface Capture {
    request_id: string;
    at: number;
    reason: string;
    differences: string[];
    request: string | null;
    request_bytes: number;
    live: CapturedAnswer;
    shadow: CapturedAnswer;
}

export interface Problem {
    severity: string;
    path: string;
    line?: number;
    column?: number;
    message: string;
    wayOut?: string;
}

/** Both arms in one part of the calls. Captured pairs have no control arm. */
export interface Both {
    canary: { n: number; value: number };
    control: { n: number; value: number } | null;
}
/** How much worse the canary is in one part of the calls than in all others. */
export interface Contrast {
    metric: string;
    /** What the values are, if they are not the metric's own values. Then they are shares. */
    measure: string | null;
    place: Segment[];
    from: "windows" | "events" | "captures";
    here: Both;
    elsewhere: Both;
    z: number;
    p: number;
    p_corrected: number;
    lead: boolean;
}
export interface Contrasts {
    level: number;
    looked: number;
    too_few: number;
    strongest: Contrast[];
    read: { topic: string; note: string | null }[];
    notes: string[];
}
