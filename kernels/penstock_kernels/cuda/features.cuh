// Features of one tick and O(1) running state: features.py's, in three stages that a warp's lanes share.
//
// A division or a logarithm in float64 takes a GPU long, and one thread would do some twenty of them one after the other.
// Here each lane does one. What is cheap every lane works out for itself, so a stage needs no exchange inside it.
//
//     stage 1   before, tick       -> running but its features (a lane per average), moves
//     stage 2   running, moves     -> running's features (a lane each)
//     stage 3   running            -> inputs of the reservoir
//
// Each expression is features.py's, in its order, so the bits are the CPU's. A stage ends at a barrier. `before` and
// `running` are two memories of RUNNING_WORDS that change places tick by tick: nothing is read that a lane overwrites.

#define FEATURE_LANES 32  // Of one warp; at least FEATURES_FEATURES, and 16 more than stage 1's averages need.

// A tick as the record has it, in 32-bit words.
struct TickWords {
    const int *words;

    __device__ __forceinline__ long long wide(int offset) const {
        const unsigned int low = (unsigned int)words[offset / 4], high = (unsigned int)words[offset / 4 + 1];
        return (long long)((unsigned long long)high << 32 | low);
    }
    __device__ __forceinline__ long long narrow(int offset) const { return (unsigned int)words[offset / 4]; }
    __device__ __forceinline__ int byte(int offset) const {
        return (int)((unsigned int)words[offset / 4] >> (offset % 4 * 8) & 255u);
    }
};

// What a tick changed, before anything is divided.
struct Moves {
    double elapsed_ns, since_trade_ns, since_move, direction;
    double bid_change, ask_change, flow, spread, depth, imbalance, tick_size;
    double bid_size, ask_size, trade_size, trade_sign;
    long long ticks, books, trades;  // Seen before this one.
    int traded, two_sided, crossed, flags;
};

__device__ __forceinline__ double difference_of(long long price, long long before) {
    const double rough = (double)price - (double)before;
    return fabs(rough) < FEATURES_EXACT ? (double)(price - before) : rough;
}

__device__ __forceinline__ double ratio_of(double value, double scale) { return scale > 0.0 ? value / scale : 0.0; }

// What the event added to the bid less what it added to the ask.
__device__ __forceinline__ double order_flow_of(const double *before, const Moves &moves) {
    double flow = 0.0;
    if (moves.bid_change >= 0.0) flow += moves.bid_size;
    if (moves.bid_change <= 0.0) flow -= before[FEATURES_BID_SIZE];
    if (moves.ask_change <= 0.0) flow -= moves.ask_size;
    if (moves.ask_change >= 0.0) flow += before[FEATURES_ASK_SIZE];
    return flow;
}

__device__ __forceinline__ double lower_of(double value, double other) { return other < value ? other : value; }

// The tick size grows by 2^-10 of itself, then is lowered to the smallest price step of this tick.
__device__ __forceinline__ double tick_size_of(double before, const Moves &moves) {
    const double bid_step = fabs(moves.bid_change), ask_step = fabs(moves.ask_change);
    double smallest = FEATURES_TICK_SIZE_MAX;
    if (before > 0.0) smallest = lower_of(before * FEATURES_TICK_SIZE_GROWTH, FEATURES_TICK_SIZE_MAX);
    if (bid_step > 0.0) smallest = lower_of(smallest, bid_step);
    if (ask_step > 0.0) smallest = lower_of(smallest, ask_step);
    if (moves.spread > 0.0) smallest = lower_of(smallest, moves.spread);
    return smallest < FEATURES_TICK_SIZE_MAX ? smallest : 0.0;
}

__device__ __forceinline__ Moves moves_of(const double *before, const TickWords &tick) {
    Moves moves;
    const long long ts_recv = tick.wide(TICK_TS_RECV);
    moves.flags = 0;
    moves.elapsed_ns = 0.0;
    moves.ticks = __double_as_longlong(before[FEATURES_TICKS]);
    moves.books = __double_as_longlong(before[FEATURES_BOOKS]);
    moves.trades = __double_as_longlong(before[FEATURES_TRADES]);
    if (moves.ticks > 0) {
        const long long last = __double_as_longlong(before[FEATURES_TS_RECV]);
        if (ts_recv < last)
            moves.flags = FEATURES_TIME_BACKWARDS;
        else
            moves.elapsed_ns = (double)(long long)((unsigned long long)ts_recv - (unsigned long long)last);
    }
    moves.since_trade_ns = before[FEATURES_SINCE_TRADE_NS];
    if (moves.trades > 0) moves.since_trade_ns += moves.elapsed_ns;

    const int side = tick.byte(TICK_SIDE);
    moves.traded = tick.byte(TICK_ACTION) == FEATURES_ACTION_TRADE;
    moves.trade_size = (double)tick.narrow(TICK_SIZE);
    moves.trade_sign = side == FEATURES_SIDE_BUY ? 1.0 : (side == FEATURES_SIDE_SELL ? -1.0 : 0.0);

    const long long bid = tick.wide(TICK_BID_PX), ask = tick.wide(TICK_ASK_PX);
    moves.two_sided = bid != FEATURES_UNDEFINED_PRICE && ask != FEATURES_UNDEFINED_PRICE;
    moves.crossed = moves.two_sided && bid >= ask;
    if (!moves.two_sided) moves.flags |= FEATURES_BOOK_ONE_SIDED;
    if (moves.crossed) moves.flags |= FEATURES_BOOK_CROSSED;
    moves.bid_size = (double)tick.narrow(TICK_BID_SZ);
    moves.ask_size = (double)tick.narrow(TICK_ASK_SZ);
    moves.bid_change = moves.ask_change = moves.flow = 0.0;
    if (moves.two_sided && moves.books > 0) {
        moves.bid_change = difference_of(bid, __double_as_longlong(before[FEATURES_BID_PRICE]));
        moves.ask_change = difference_of(ask, __double_as_longlong(before[FEATURES_ASK_PRICE]));
        moves.flow = order_flow_of(before, moves);
    }
    moves.spread = moves.two_sided ? difference_of(ask, bid) : 0.0;
    moves.depth = moves.bid_size + moves.ask_size;
    moves.imbalance = 0.0;
    moves.tick_size = moves.two_sided ? tick_size_of(before[FEATURES_TICK_SIZE], moves) : before[FEATURES_TICK_SIZE];

    const double mid_change = 0.5 * (moves.bid_change + moves.ask_change);
    moves.direction = before[FEATURES_DIRECTION];
    if (mid_change != 0.0) {
        moves.since_move = 0.0;
        moves.direction = mid_change > 0.0 ? 1.0 : -1.0;
    } else {
        moves.since_move = before[FEATURES_SINCE_MOVE] + 1.0;
    }
    return moves;
}

// Stage 1. Lane 0 writes what is counted and kept, lanes 1 to 6 an average each, lane 7 the imbalance.
__device__ __forceinline__ void features_kept(const double *before, const TickWords &tick, double *running,
                                              Moves *shared_moves, int lane) {
    const Moves moves = moves_of(before, tick);
    double value = 0.0, weight = 1.0;
    long long events = 0;  // 0: the average stays as it is.
    int position = FEATURES_FLOW_MEAN;
    const long long books_before = moves.two_sided ? moves.books : 0;
    const double movement = fabs(0.5 * (moves.bid_change + moves.ask_change));
    switch (lane) {
    case 1: value = fabs(moves.flow), weight = FEATURES_SLOW, events = books_before; break;
    case 2: value = movement, weight = FEATURES_FAST, events = books_before, position = FEATURES_MOVEMENT_FAST; break;
    case 3: value = movement, weight = FEATURES_SLOW, events = books_before, position = FEATURES_MOVEMENT_SLOW; break;
    case 4:
        value = moves.depth, weight = FEATURES_SLOW, position = FEATURES_DEPTH_MEAN;
        events = moves.two_sided ? moves.books + 1 : 0;
        break;
    case 5:
        value = moves.trade_size, weight = FEATURES_TRADE_SIZES, position = FEATURES_TRADE_SIZE_MEAN;
        events = moves.traded ? moves.trades + 1 : 0;
        break;
    case 6:
        value = moves.trade_sign, weight = FEATURES_TRADE_SIGNS, position = FEATURES_TRADE_SIGN_MEAN;
        events = moves.traded ? moves.trades + 1 : 0;
        break;
    default: break;
    }
    const bool divides_depth = lane == 7 && moves.depth > 0.0;
    const double over = divides_depth ? moves.bid_size - moves.ask_size : 1.0;
    const double under = divides_depth ? moves.depth : (events > 0 ? (double)events : 1.0);
    if (lane == 0) {
        running[FEATURES_TICKS] = __longlong_as_double(moves.ticks + 1);
        running[FEATURES_BOOKS] = __longlong_as_double(moves.books + (moves.two_sided ? 1 : 0));
        running[FEATURES_TRADES] = __longlong_as_double(moves.trades + (moves.traded ? 1 : 0));
        running[FEATURES_TS_RECV] = __longlong_as_double(tick.wide(TICK_TS_RECV));
        running[FEATURES_BID_PRICE] =
            moves.two_sided ? __longlong_as_double(tick.wide(TICK_BID_PX)) : before[FEATURES_BID_PRICE];
        running[FEATURES_ASK_PRICE] =
            moves.two_sided ? __longlong_as_double(tick.wide(TICK_ASK_PX)) : before[FEATURES_ASK_PRICE];
        running[FEATURES_BID_SIZE] = moves.two_sided ? moves.bid_size : before[FEATURES_BID_SIZE];
        running[FEATURES_ASK_SIZE] = moves.two_sided ? moves.ask_size : before[FEATURES_ASK_SIZE];
        running[FEATURES_TICK_SIZE] = moves.tick_size;
        running[FEATURES_SINCE_TRADE_NS] = moves.traded ? 0.0 : moves.since_trade_ns;
        running[FEATURES_SINCE_MOVE] = moves.since_move;
        running[FEATURES_DIRECTION] = moves.direction;
        running[FEATURES_ELAPSED_NS] = moves.elapsed_ns;
        // The moves but the imbalance, which is lane 7's.
        shared_moves->since_trade_ns = moves.since_trade_ns;
        shared_moves->bid_change = moves.bid_change;
        shared_moves->ask_change = moves.ask_change;
        shared_moves->flow = moves.flow;
        shared_moves->spread = moves.spread;
        shared_moves->depth = moves.depth;
        shared_moves->trade_size = moves.trade_size;
        shared_moves->trade_sign = moves.trade_sign;
        shared_moves->traded = moves.traded;
        shared_moves->two_sided = moves.two_sided;
        shared_moves->crossed = moves.crossed;
        shared_moves->flags = moves.flags;
    }
    const double quotient = over / under;
    if (lane >= 1 && lane <= 6) {
        double average = before[position];
        if (events > 0) {
            const double gain = quotient > weight ? quotient : weight;
            average = average + gain * (value - average);
            average = fabs(average) > FEATURES_NOTHING ? average : 0.0;
        }
        running[position] = average;
    }
    if (lane == 7) shared_moves->imbalance = divides_depth ? quotient : 0.0;
}

// Stage 2. Lane i makes feature i: a quotient, 1 more than it, then a logarithm or asinh of it, as its kind says.
__device__ __forceinline__ void features_raw(const double *before, double *running, const Moves &moves, int lane) {
    if (lane >= FEATURES_FEATURES) return;
    enum { KEPT, PLAIN, LOGARITHM, ASINH };
    int kind = moves.two_sided ? ASINH : KEPT;  // A one-sided book leaves the last two-sided one's.
    double value = 0.0, scale = 1.0, more = 0.0;
    const double tick_size = running[FEATURES_TICK_SIZE];
    const double fast = running[FEATURES_MOVEMENT_FAST] + FEATURES_MOVEMENT_FLOOR * tick_size;
    const double slow = running[FEATURES_MOVEMENT_SLOW] + FEATURES_MOVEMENT_FLOOR * tick_size;
    const bool sound = moves.two_sided && !moves.crossed;
    switch (lane) {
    case FEATURES_IMBALANCE: kind = PLAIN, value = sound ? moves.imbalance : 0.0; break;
    case FEATURES_MICROPRICE:
        kind = sound ? ASINH : PLAIN;
        if (sound) value = 0.5 * moves.imbalance * moves.spread, scale = tick_size;
        break;
    case FEATURES_SPREAD: value = moves.spread, scale = tick_size; break;
    case FEATURES_MID_CHANGE:
        kind = moves.two_sided ? ASINH : PLAIN;
        value = 0.5 * (moves.bid_change + moves.ask_change), scale = slow;
        break;
    case FEATURES_BID_CHANGE: kind = moves.two_sided ? ASINH : PLAIN, value = moves.bid_change, scale = slow; break;
    case FEATURES_ASK_CHANGE: kind = moves.two_sided ? ASINH : PLAIN, value = moves.ask_change, scale = slow; break;
    case FEATURES_ORDER_FLOW:
        kind = moves.two_sided ? ASINH : PLAIN;
        value = moves.flow, scale = running[FEATURES_FLOW_MEAN];
        break;
    case FEATURES_TRADE_SIZE_SIGNED:
        kind = moves.traded ? ASINH : PLAIN;
        if (moves.traded) value = moves.trade_sign * moves.trade_size, scale = running[FEATURES_TRADE_SIZE_MEAN];
        break;
    case FEATURES_TRADE: kind = PLAIN, value = moves.traded ? 1.0 : 0.0; break;
    case FEATURES_INTERARRIVAL:
        kind = LOGARITHM, value = running[FEATURES_ELAPSED_NS], scale = FEATURES_NS_PER_US, more = 1.0;
        break;
    case FEATURES_SINCE_TRADE:
        kind = LOGARITHM, value = moves.since_trade_ns, scale = FEATURES_NS_PER_US, more = 1.0;
        break;
    case FEATURES_VOLATILITY_RATIO:
        if (moves.two_sided) {
            kind = slow > 0.0 ? LOGARITHM : PLAIN;
            if (slow > 0.0) value = fast, scale = slow;
        }
        break;
    case FEATURES_TRADE_SIGN:
        kind = moves.traded ? PLAIN : KEPT, value = running[FEATURES_TRADE_SIGN_MEAN];
        break;
    case FEATURES_LAST_MOVE: kind = moves.two_sided ? PLAIN : KEPT, value = running[FEATURES_DIRECTION]; break;
    case FEATURES_DEPTH:
        kind = moves.two_sided ? LOGARITHM : KEPT;
        value = 1.0 + moves.depth, scale = 1.0 + running[FEATURES_DEPTH_MEAN];
        break;
    case FEATURES_EVENTS_SINCE_MOVE: kind = LOGARITHM, value = running[FEATURES_SINCE_MOVE], more = 1.0; break;
    default: break;
    }
    double result = before[FEATURES_RAW + lane];
    if (kind != KEPT) result = kind == PLAIN ? value : more + ratio_of(value, scale);
    if (kind == LOGARITHM || kind == ASINH) {
        const bool negative = kind == ASINH && result < 0.0;
        double argument = result;
        if (kind == ASINH) {
            const double magnitude = lower_of(fabs(result), ELEMENTARY_ASINH_LARGE);
            argument = magnitude + sqrt(magnitude * magnitude + 1.0);
        }
        result = log_step(argument);
        if (negative) result = -result;
    }
    running[FEATURES_RAW + lane] = result;
}

// Stage 3. The model's features, standardised and clipped; by seconds then the seconds since the last tick.
__device__ __forceinline__ void features_inputs(const Shape &shape, const double *constants, const double *running,
                                                float *inputs, int lane) {
    const double clip = constants[PACKED_CLIP];
    for (int position = lane; position < shape.inputs; position += FEATURE_LANES) {
        double value = running[FEATURES_RAW + shape.codes[position]];
        value = (value - constants[shape.means_offset + position]) * constants[shape.scales_offset + position];
        value = -clip > value ? -clip : value;
        inputs[position] = (float)(clip < value ? clip : value);
    }
    if (lane == 0 && shape.seconds) inputs[shape.inputs] = (float)(running[FEATURES_ELAPSED_NS] * PREDICTOR_S_PER_NS);
}
