/* Between doctor and the process it starts: the line that the process prints, "MARK CATEGORY text". */
#ifndef LIFECYCLE_DOCTOR_H
#define LIFECYCLE_DOCTOR_H

#define DOCTOR_PROBE_MARK "envelope-probe: "

enum doctor_probe_category {
    DOCTOR_PROBE_GOOD = 'G',
    DOCTOR_PROBE_LOAD = 'L',          /* the provider or the configuration does not load */
    DOCTOR_PROBE_INACTIVE = 'I',      /* the configuration does not mention us */
    DOCTOR_PROBE_NOT_ACTIVATED = 'A', /* it names us, and lacks activate = 1 */
    DOCTOR_PROBE_NO_DEFAULT = 'N',    /* it switches the default provider off */
    DOCTOR_PROBE_FETCH = 'F',
    DOCTOR_PROBE_ENCRYPT = 'E',
    DOCTOR_PROBE_DECRYPT = 'D'
};

#endif
