// Answers of a contrast search: with leads for a held rollout, and without any for an ended one.

const place = (dimension, value) => ({ dimension, value });
const both = (n, canary, control) => ({ canary: { n, value: canary }, control: { n: 2 * n, value: control } });
const LOOKED = 412;
const contrast = (metric, where, here, elsewhere, z, p, more = {}) => ({
    metric,
    measure: null,
    place: where,
    from: "windows",
    here,
    elsewhere,
    z,
    p,
    p_corrected: Math.min(1, p * LOOKED),
    lead: p * LOOKED <= 0.05,
    ...more,
});

const STRONGEST = [
    contrast(
        "wrong_rate",
        [place("origin", "LGA"), place("carrier", "UA")],
        both(58, 0.483, 0.071),
        both(322, 0.0812, 0.0833),
        6.2,
        5.6e-10,
        { from: "events" },
    ),
    contrast(
        "late",
        [place("request.passenger.home_town_as_the_passenger_wrote_it", "Llanfairpwllgwyngyll, Ynys Môn 🚂 威尔士")],
        { canary: { n: 64, value: 0.61 }, control: null },
        { canary: { n: 930, value: 0.04 }, control: null },
        5.1,
        3.4e-7,
        { from: "captures", measure: "share of captured pairs that differ" },
    ),
    contrast(
        "latency_p99",
        [place("response.zone", "b")],
        both(120, 0.031, 0.0098),
        both(700, 0.0103, 0.01),
        2.4,
        0.016,
        {
            measure: "share of answers above 812 ms",
        },
    ),
    contrast("wrong_rate", [place("hour", "10 to 20")], both(140, 0.1, 0.079), both(240, 0.081, 0.083), 0.9, 0.37),
];

/** The answer about a rollout. */
export const contrasts = ({ state }) => ({
    rollout: state.id,
    level: 0.05,
    looked: LOOKED,
    too_few: 37,
    strongest: state.phase === "held" ? STRONGEST : STRONGEST.filter((one) => !one.lead),
    read: [
        { topic: "windows", records: 120, complete: true, note: null },
        {
            topic: "events",
            records: 50000,
            complete: false,
            note: "events: only the newest 50,000 records of a partition were read",
        },
    ],
    notes:
        state.phase === "held"
            ? []
            : ["fields of requests that the file does not declare were not searched: no pair is captured yet"],
});
