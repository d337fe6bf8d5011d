"""What the page says."""

HEAD = """
# flowavenet
A flow is one invertible map between **sound** and **noise**, steered by a mel spectrogram. Noise in, and speech comes out.
Speech in, and out come the noise that would make exactly this recording, and how likely it is.

Take an example, or bring a recording or a mel file (up to 60 s, 20 MB), and press a button. Nothing leaves this server.
"""
TEMPERATURE = "Strength of the noise. Lower: duller, steadier. Higher: livelier, rougher."
MATCH = "In Vocode and Temperature: brings the flow's sound to exactly the mel. 0: the flow alone."
SEED = "The same seed gives the same samples."
FROM_TO = "0: the first recording's. 1: the second's."

VOCODE = """
**Hear it.** Only the mel spectrogram is kept of the recording: how loud each band is, some 90 times a second, and no phases.
The flow makes a new waveform of it. The line over the recording is its exact log-likelihood: high where it is what the
model expects (silence most of all), low where it is surprised.
"""
ROUND_TRIP = """
**Nothing is lost.** The flow takes the recording to noise, sample for sample, and the noise back to the recording. A perfect
model would leave nothing of the speech in the noise; what structure you still see there is what it has not learned.
"""
SWEEP = """
**From the average to the wild.** The same noise, from none of it (temperature 0: what the model holds for typical) to all of
it (1: what it was trained on). Set the rounds of mel matching to 0 to hear the flow alone.
"""
INTERPOLATE = """
**Between two recordings.** Each has its mel and its noise; walk from the first to the second with either. The mel says what
is spoken and by whom, the noise how exactly: with the mel at 0 and the noise at 1, the first sentence is spoken with the
fine grain of the second.
"""
EDIT = """
**Change a moment, keep the rest.** The noise has the recording's time axis. Draw a span of it anew, or make it stronger or
weaker, and only that span of the sound changes, but for the little way that the flow's filters reach.
"""
NOTHING_GIVEN = "there is nothing to work on: record or upload a recording, drop a mel file, or take an example"
NO_SECOND = "a second recording is missing: record or upload one, or take an example"
NOT_FINITE = "of this noise the flow makes samples that are no numbers; take weaker noise, or another recording"
NO_SEED = "the seed is missing: give a whole number, such as 0"
